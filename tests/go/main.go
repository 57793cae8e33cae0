// Command mutex takes a lock of etcd or ZooKeeper so many times by Go's own mutex, and runs a command each time while it
// holds it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
)

const patience = time.Minute

type mutex interface {
	Lock(ctx context.Context) error
	Unlock(ctx context.Context) error
}

// Each returns the mutex of a key, and a function that closes its client.
var backends = map[string]func(address, key string) (mutex, func(), error){
	"etcd":      ofEtcd,
	"zookeeper": ofZooKeeper,
}

func main() {
	if len(os.Args) < 6 {
		fmt.Fprintln(os.Stderr, "usage: mutex etcd|zookeeper ADDRESS KEY ENTRIES COMMAND...")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutex:", err)
		os.Exit(1)
	}
}

func run(backend, address, key, entries string, command []string) error {
	n, err := strconv.Atoi(entries)
	if err != nil {
		return err
	}
	open, ok := backends[backend]
	if !ok {
		return fmt.Errorf("no backend %q", backend)
	}
	mutex, closeClient, err := open(address, key)
	if err != nil {
		return err
	}
	defer closeClient()
	for ; n > 0; n-- {
		if err := enter(mutex, command); err != nil {
			return err
		}
	}
	return nil
}

func enter(mutex mutex, command []string) error {
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
