import socket
import sys

address, port, source = sys.argv[1], int(sys.argv[2]), sys.argv[3]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family) as asking:
    asking.settimeout(3)
    try:
        if source:
            asking.bind((source, 0))
        asking.connect((address, port))
        print(asking.recv(100).decode())
    except OSError as error:
        print(type(error).__name__)
