"""What a drawn trial asks, read back from its inputs: loops over steps, no jax.

Periods are found in the inputs, and what they ask follows from the definitions in
lra_jax/tasks. For trials in which a step is about 100 ms: noise is then so small that
no step of a stimulus is taken for another.
"""

import math
from fractions import Fraction

import numpy as np

SHOWN = 0.08  # of a channel, where something is shown


def groups(active):
    """The runs of true steps, as (first, after the last)."""
    edges = np.flatnonzero(np.diff(np.r_[False, active, False].astype(int)))
    return list(zip(edges[::2], edges[1::2], strict=True))


def stimuli(x, start, channels):
    """The runs of steps in which any of the channels shows something."""
    active = np.max(x[:, channels], axis=1) > SHOWN
    active[:start] = False
    return groups(active)


def response_of(x, start):
    """The first step of the response: the fixation signal is off."""
    return next(t for t in range(start, len(x)) if x[t, 0] < 0.5)


def asked(x, start, answer, duration):
    """Labels and weights of all steps, of a trial that asks for `answer`."""
    seq_len = len(x)
    begin = response_of(x, start)
    grace = seq_len * 100 // duration
    labels, weights = np.zeros(seq_len, int), np.zeros(seq_len)
    for t in range(start, seq_len):
        if t < begin:
            weights[t] = 1
        else:
            labels[t] = answer
            if t >= begin + grace:
                weights[t] = (begin - start) / (seq_len - begin - grace)
    return labels, weights


def brighter(x, steps, channels):
    """Which of the channels has the largest mean in a run of steps."""
    return int(np.argmax(x[slice(*steps)][:, channels].mean(axis=0)))


def perceptual_decision(x, start):
    (steps,) = stimuli(x, start, [1, 2])
    return 1 + brighter(x, steps, [1, 2])


def context_integration(x, start):
    (steps,) = stimuli(x, start, [1, 2, 3, 4])
    colour = x[start:, 6].mean() > x[start:, 5].mean()
    return 1 + brighter(x, steps, [3, 4] if colour else [1, 2])


def delayed_match(x, start):
    sample, test = (brighter(x, steps, [1, 2]) for steps in stimuli(x, start, [1, 2]))
    return 1 if sample == test else 2


def delayed_nonmatch(x, start):
    return delayed_match(x, start) - 1


def delayed_comparison(x, start):
    first, second = (x[slice(*steps), 1].mean() for steps in stimuli(x, start, [1]))
    return 1 if first > second else 2


def go_nogo(x, start):
    (steps,) = stimuli(x, start, [1, 2])
    return brighter(x, steps, [1, 2])


def memory_pro_anti(x, start):
    ring = list(range(1, 9))
    (steps,) = stimuli(x, start, ring)
    direction = brighter(x, steps, ring)
    anti = x[start:, 10].mean() > x[start:, 9].mean()
    return 1 + (direction + 4 * anti) % 8


# Name to the answer of a trial, and D in ms.
ANSWERS = {
    "perceptual_decision": (perceptual_decision, 2500),
    "context_integration": (context_integration, 2750),
    "delayed_match": (delayed_match, 3400),
    "delayed_nonmatch": (delayed_nonmatch, 3400),
    "delayed_comparison": (delayed_comparison, 3400),
    "go_nogo": (go_nogo, 3000),
    "memory_pro_anti": (memory_pro_anti, 3100),
}


def ready_set_go(x, start):
    """Labels and weights; the steps from ready to set are produced again."""
    seq_len = len(x)
    ready, set_ = (
        next(t for t in range(start, seq_len) if x[t, i] > 0.5) for i in (1, 2)
    )
    interval = set_ - ready
    go = set_ + interval
    tolerance = math.floor(Fraction(interval, 5) + Fraction(seq_len * 25, 4000))
    labels, weights = np.zeros(seq_len, int), np.zeros(seq_len)
    waits = range(start, go - tolerance)
    late = range(go + tolerance, seq_len)
    for t in range(seq_len):
        labels[t] = t >= go
        weights[t] = 1 if t in waits else len(waits) / len(late) if t in late else 0
    return labels, weights


def flip_flop(x, start):
    """Labels and weights [T, 3]."""
    labels, bits = np.zeros(x.shape), np.zeros(3)
    for t in range(start, len(x)):
        for i in range(3):
            if abs(x[t, i]) > 0.5:
                bits[i] = np.sign(x[t, i])
        labels[t] = bits
    return labels, (labels != 0) * 1.0


def sine(x, start):
    """Labels [T, 1] and weights [T]."""
    index = round((x[start:, 0].mean() - 0.25) * 51)
    omega = (0.1 + 0.5 * index / 50) * 60 / len(x)
    labels = np.array([[np.sin(omega * t)] for t in range(len(x))])
    return labels, np.ones(len(x))


def copying(x):
    """Labels of a sequence of symbols."""
    labels = np.zeros(len(x), int)
    recall = list(x).index(9)
    labels[recall + 1 :] = 1 + np.array(x[:10])
    return labels
