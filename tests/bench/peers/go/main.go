// Go's mutex of etcd in workload c: one of several processes on one key. Arguments: URL, record, seconds, hold and think in µs.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"golang.org/x/sys/unix"
)

func main() {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{strings.TrimPrefix(os.Args[1], "etcd://")}})
	must(err)
	session, err := concurrency.NewSession(client)
	must(err)
	lock, own := concurrency.NewMutex(session, "peer-c"), context.Background()
	must(lock.Lock(own))
	must(lock.Unlock(own))
	seconds, err := strconv.ParseFloat(os.Args[3], 64)
	must(err)
	hold, think := micros(os.Args[4]), micros(os.Args[5])

	fmt.Println("ready")
	_, err = os.Stdin.Read(make([]byte, 1))
	must(err)
	var record []byte
	longest, end := int64(0), nanos()+int64(seconds*1e9)
	for nanos() < end {
		asked := nanos()
		must(lock.Lock(own))
		begun := nanos()
		longest = max(longest, begun-asked)
		time.Sleep(hold)
		record = binary.LittleEndian.AppendUint64(record, uint64(begun))
		record = binary.LittleEndian.AppendUint64(record, uint64(nanos()))
		must(lock.Unlock(own))
		time.Sleep(think)
	}
	must(os.WriteFile(os.Args[2], record, 0o600))
	fmt.Printf("{\"longest_ms\": %f}\n", float64(longest)/1e6)
	must(session.Close())
}

// A clock that all processes share.
func nanos() int64 {
	var now unix.Timespec
	must(unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	return now.Nano()
}

func micros(text string) time.Duration {
	number, err := strconv.Atoi(text)
	must(err)
	return time.Duration(number) * time.Microsecond
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
