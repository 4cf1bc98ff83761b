"""Fixtures of the store's tests."""

from tests.support.etcd import etcd

__all__ = ["etcd"]
