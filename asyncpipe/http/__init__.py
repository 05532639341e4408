"""HTTP without any API in it: one client, hosts, headers, bodies, multipart forms.

It knows what was surely not sent, which hosts may be asked, and through which proxy; which API it
talks to is its caller's affair.
"""
