"""Readers of published sets: one module a layout, its `read` maps the set's folder to a `PublishedSet`.

A module says where the layout was looked up. None was tried on the published files themselves, which are large and
behind forms and competitions: a set whose files have changed since is refused with what is missing, not guessed at.
"""
