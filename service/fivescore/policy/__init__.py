"""What a policy's own text means: its template's turns, and how a sampled response ends.

Knows a tokenizer that it is given, of transformers or alike, and no library. Server and client read
the same text with it.
"""
