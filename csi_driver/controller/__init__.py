"""The controller's verbs: a CSI call becomes a wanted record, and waits for the agent that makes it true."""
