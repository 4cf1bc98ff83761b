"""The libvirt driver: any libvirt URI (QEMU/KVM, the test driver) behind a few asynchronous calls.

`connection` is the only place that imports libvirt, `xml` only renders, `driver` decides nothing about VMs' lives.
"""
