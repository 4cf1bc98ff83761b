"""gRPC servers and channels of moln: one place for deadlines, errors, logs and metrics of calls."""

from services.common.rpc.call import REQUEST_ID_HEADER, Call, Gate, current_call, new_request_id
from services.common.rpc.channel import ClientTls, Deadline, Headers, connect
from services.common.rpc.errors import RemoteError, decode_error, decode_status, encode_status
from services.common.rpc.secret import make_service_secret, read_service_secret, secret_gate, secret_headers
from services.common.rpc.server import Limits, RpcServer

__all__ = [
    "REQUEST_ID_HEADER",
    "Call",
    "ClientTls",
    "Deadline",
    "Gate",
    "Headers",
    "Limits",
    "RemoteError",
    "RpcServer",
    "connect",
    "current_call",
    "decode_error",
    "decode_status",
    "encode_status",
    "make_service_secret",
    "new_request_id",
    "read_service_secret",
    "secret_gate",
    "secret_headers",
]
