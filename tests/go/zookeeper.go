package main

import (
	"context"
	"time"

	"github.com/go-zookeeper/zk"
)

// A zkLock adds an end of the waiting to go-zookeeper's lock.
type zkLock struct{ lock *zk.Lock }

func (l zkLock) Lock(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- l.lock.Lock() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l zkLock) Unlock(context.Context) error {
	return l.lock.Unlock()
}

func ofZooKeeper(address, path string) (mutex, func(), error) {
	client, _, err := zk.Connect([]string{address}, 10*time.Second, zk.WithLogInfo(false))
	if err != nil {
		return nil, nil, err
	}
	return zkLock{zk.NewLock(client, path, zk.WorldACL(zk.PermAll))}, client.Close, nil
}
