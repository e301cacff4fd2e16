"""``flatmin compare``: does it pay here, and which settings should be used?"""
