"""What a user would do instead of merging, measured as the study measures its merges.

=============== =========================================================================
rival           what it is
=============== =========================================================================
system-prompt   the language expert, told in a system message to refuse
guard           the safety expert in front: where it refuses, nobody else answers
steering        the language expert with a hook on one layer that turns it to refusing
fine-tuned      the language expert trained on refusals in the language: the ceiling
=============== =========================================================================

Two stresses tell how long each holds: some steps of harmless fine-tuning, and answers whose first
words are written already.
"""
