"""How fast it is: this machine, other ways to do it, an accelerator."""
