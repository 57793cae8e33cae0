// Command mutex takes an etcd lock so many times by Go's own mutex, and runs a command each time while it holds it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

const patience = time.Minute

func main() {
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "usage: mutex ENDPOINT KEY ENTRIES COMMAND...")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutex:", err)
		os.Exit(1)
	}
}

func run(endpoint, key, entries string, command []string) error {
	n, err := strconv.Atoi(entries)
	if err != nil {
		return err
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: patience})
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := concurrency.NewSession(client)
	if err != nil {
		return err
	}
	defer session.Close()
	mutex := concurrency.NewMutex(session, key)
	for ; n > 0; n-- {
		if err := enter(mutex, command); err != nil {
			return err
		}
	}
	return nil
}

func enter(mutex *concurrency.Mutex, command []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := mutex.Lock(ctx); err != nil {
		return err
	}
	inside := exec.Command(command[0], command[1:]...)
	inside.Stderr = os.Stderr
	failed := inside.Run()
	if err := mutex.Unlock(ctx); err != nil {
		return err
	}
	return failed
}
