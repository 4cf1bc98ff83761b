"""The services of moln and what they share. Services never import each other."""

import os

# gRPC's handlers of fork() run in every child that uvloop makes, between fork and exec, and some of them crash there
# (nft, qemu-img: "killed by signal 11"). Nothing here forks without exec, so nothing needs them. Read when gRPC starts.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
