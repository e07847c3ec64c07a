"""Notices: tell channels what needs attention, once, and once when it is over."""
