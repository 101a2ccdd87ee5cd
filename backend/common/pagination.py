"""Pages of the API's lists."""

from rest_framework.pagination import CursorPagination


class Pages(CursorPagination):
    """Cursor pages in the order of making: stable while rows come and go, and as fast on page 1,000 as on page 1."""

    page_size = 50
    max_page_size = 500
    page_size_query_param = "page_size"
    ordering = "id"
