"""Linux bridges that the agent makes for networks, with a gateway address and address translation where asked."""
