"""The JSON API: the same data and actions as the pages, with the same permissions and audit.

Endpoints are in docs/build/api.md. `auth` authenticates and throttles, `params` parses requests,
`queries` finds runs by place or id, `serializers` and `responses` write JSON. The commands share
`queries` and `serializers`.
"""
