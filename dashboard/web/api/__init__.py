"""The JSON API: what pages show and do, for machines, by the same rights and with the same audit.

Three addresses (docs/api.md). `door` lets callers in, `answers` makes JSON of what they get,
`asking` reads what they want, `shapes` is how a run and an abort look, `finding` finds a run by its
id alone. The commands share the last two.
"""
