"""The one place that talks to etcd: watch cache, group commit, leases, leaders."""
