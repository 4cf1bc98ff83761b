"""gRPC servicers of netsvc: they translate, and decide nothing."""
