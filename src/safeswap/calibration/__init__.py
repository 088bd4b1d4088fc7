"""Calibration: run experts over a few texts and keep what their layers saw.

``texts`` and ``pairs`` read the texts, ``layers`` finds which layer of the loaded model holds which
tensor, ``collect`` sums Gram matrices of the layers' inputs. A job (``entry`` for texts and chats,
``neurons`` for pairs of prompts) runs one expert (``expert_run``) over one file, and ``run`` does
all of them and writes the folder that operators read (:mod:`safeswap.operators.gram_store`).
"""
