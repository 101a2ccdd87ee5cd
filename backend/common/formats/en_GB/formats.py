"""Times of 24 hours and one form of a date: Django's British ones are "2:05 a.m." and, when short, "22/11/2026"."""

DATE_FORMAT = SHORT_DATE_FORMAT = "j M Y"
TIME_FORMAT = "H:i"
DATETIME_FORMAT = SHORT_DATETIME_FORMAT = "j M Y, H:i"
