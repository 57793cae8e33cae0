package main

import (
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func ofEtcd(address, key string) (mutex, func(), error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: patience})
	if err != nil {
		return nil, nil, err
	}
	session, err := concurrency.NewSession(client)
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	closeClient := func() {
		session.Close()
		client.Close()
	}
	return concurrency.NewMutex(session, key), closeClient, nil
}
