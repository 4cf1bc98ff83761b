"""A thin asyncio client of etcd over our own declaration of its messages. Used by the store library only."""
