"""Decide whether a result of an earlier run may be used now, and say why not.

Fingerprints name commands and states, `recollection` finds a hit among stored rows, and
`differences` names the first reason of a miss. The room imports `model` and `recall.logic` of the
engine. It is pure: rows and facts are arguments. Do not touch: what is not in a fingerprint must be
unable to change a result. A variable that is left out is therefore also taken from the job
(`UNKEYED`).
"""
