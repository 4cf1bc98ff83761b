"""gRPC servicers of imagesvc: they translate, and decide nothing."""
