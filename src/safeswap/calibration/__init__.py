"""Calibration: run each expert over a few unlabelled texts and keep what its layers saw.

``texts`` reads the texts, ``layers`` finds which layer of the loaded model holds which tensor,
``collect`` sums Gram matrices of the layers' inputs, ``run`` does so for every expert and writes
the folder that the operator ``regmean`` reads (:mod:`safeswap.operators.gram_store`).
"""
