"""Which ports of a host are open to another one; run in that other one's namespace."""

import json
import sys

from fer_search.network import why_unreachable

if __name__ == "__main__":
    print(json.dumps([port for port in range(1, 65536) if why_unreachable(sys.argv[1], port) is None]))
