"""A process that locks with `GET_LOCK` by PyMySQL: `peer.py PORT NAME ENTRIES COMMAND...`.

It runs the command inside.
"""

import subprocess
import sys

import pymysql

PATIENCE = 60


def main(port, name, entries, *command):
    connection = pymysql.connect(host="127.0.0.1", port=int(port), user="")
    with connection, connection.cursor() as cursor:
        for _ in range(int(entries)):
            cursor.execute("SELECT GET_LOCK(%s, %s)", (name, PATIENCE))
            assert cursor.fetchone() == (1,)
            try:
                subprocess.run(command, check=True)
            finally:
                cursor.execute("SELECT RELEASE_LOCK(%s)", (name,))
                assert cursor.fetchone() == (1,)


main(*sys.argv[1:])
