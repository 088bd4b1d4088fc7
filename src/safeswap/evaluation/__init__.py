"""Evaluation: is a merge safer in its language, and no less able?"""
