"""Durations as text: the same whether the server writes them or a page counts them."""

# (seconds, the duration, the elapsed time in a sentence).
DURATIONS = [
    (0, "0 s", "for 0 s"),
    (5, "5 s", "for 5 s"),
    (59, "59 s", "for 59 s"),
    (60, "1 min 00 s", "for 1 min"),
    (65, "1 min 05 s", "for 1 min"),
    (252, "4 min 12 s", "for 4 min"),
    (3599, "59 min 59 s", "for 59 min"),
    (3600, "1 h 00 min", "for 1 h"),
    (3659, "1 h 00 min", "for 1 h"),
    (7500, "2 h 05 min", "for 2 h 05 min"),
    (86_399, "23 h 59 min", "for 23 h 59 min"),
    (86_400, "1 d 0 h", "for 1 d"),
    (273_600, "3 d 4 h", "for 3 d 4 h"),
    (950_400, "11 d 0 h", "for 11 d"),
]
