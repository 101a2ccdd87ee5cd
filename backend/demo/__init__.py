"""`manage.py demo`: the main job on embedded engines, from a bare checkout."""
