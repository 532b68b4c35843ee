"""What is observed of rules: errors, gradients and their angles, update by update."""
