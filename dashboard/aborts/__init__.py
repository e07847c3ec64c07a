"""Abort runs: record the request, send it, store Northflank's response, reconcile until settled.

`request` records an abort, `send` sends it, `resend` repeats one that may not have arrived,
`settle` ends one, `reconcile` adopts aborts of dead processes. `bulk_request` and `bulk_send` do
the same for several runs.

Source: https://northflank.com/docs/v1/api/project/pipelines/abort-release-flow-run documents 200
as accepted. It documents neither the effect on a concluded run nor how long aborting lasts, so
after a refusal or an unclear response the run is read again before the abort is settled.
"""
