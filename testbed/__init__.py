"""A real cluster on one machine: Corosync and Pacemaker in namespaces, and a hypervisor for guests."""
