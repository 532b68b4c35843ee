"""What the paper's own program computes: evidence, and nothing to train with.

The authors' released program departs from the algorithm that the paper prints.

    released        the program as a rule, and its validation
    output_layer    its cross entropy, the readout's gradients, the top target
    hidden_layer    its targets, local losses and gradients through history
    arithmetic      its local losses, Ω and norms
"""
