"""Django's admin: records, read-only, and overrides of typical durations."""

from django.contrib import admin

from dashboard.admin import mirror, records, stage_timings

# Accounts and groups are changed under /people/, and a row of an identity provider would let its
# user sign in, unrecorded.
for model in list(admin.site._registry):
    if model._meta.app_label != "dashboard":
        admin.site.unregister(model)
