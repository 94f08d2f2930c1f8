"""Objects as users write them to intent: `read` gives a raw document its type, each dialect's queries give it a meaning.

Pure. Knows no files, no plan and no Envoy. A dialect never imports another; `reading` is where they meet.
"""
