"""A page that shows the images of a SOURCE or PARQUET REPO, with filters.

    filters   what a visitor asks for, and the query of the address that says so
    index     a table of all rows: which match a filter, in which order, and how often each label occurs
    images    image files and thumbnails of some rows
    parts     the HTML of the page's parts, from plain texts
    gallery   what the page shows for a query
    guard     which requests are answered, and headers of responses
    app       the Gradio app, and the server

Only `app` imports Gradio.
"""
