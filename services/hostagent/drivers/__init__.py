"""Drivers: one hypervisor each, behind the Protocols of `ports`. They do as they are told and decide nothing."""
