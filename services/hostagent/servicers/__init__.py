"""What a node serves to other nodes: files of VMs that move, on its data port."""
