package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// address is a place to listen on, checked to be free. The zero value stands for one that is switched off.
type address struct {
	bind string // the IP to listen on
	port int
	dial string // host:port that reaches it from this machine
}

// reserve checks that the address of a setting can be listened on and picks a port where it asks for port 0. Temporal and
// its UI only take port numbers, no listeners: checking here lets the error name the setting, before anything is started.
func reserve(setting, hostPort string) (address, error) {
	if hostPort == "" {
		return address{}, nil
	}
	listener, err := listen(setting, hostPort)
	if err != nil {
		return address{}, err
	}
	defer func() { _ = listener.Close() }()
	bound := listener.Addr().(*net.TCPAddr)
	reached := net.TCPAddr{IP: bound.IP, Port: bound.Port}
	if bound.IP.IsUnspecified() {
		reached.IP = net.IPv6loopback
		if host, _, _ := net.SplitHostPort(hostPort); host != "::" {
			bound.IP = net.IPv4zero
			reached.IP = net.IPv4(127, 0, 0, 1)
		}
	}
	if err := keepFromOthers(listener, &reached); err != nil {
		return address{}, fmt.Errorf("%s: reserve port %d: %w", setting, bound.Port, err)
	}
	return address{bind: bound.IP.String(), port: bound.Port, dial: reached.String()}, nil
}

// reserveLoopback picks a free loopback port for a service that only this process talks to.
func reserveLoopback() (address, error) { return reserve("internal service", "127.0.0.1:0") }

// keepFromOthers makes and closes a connection to the listener, server side first. That leaves the port in TIME_WAIT, in
// which Linux gives it to nobody who asks for just any port, while a listener that names the port still gets it.
func keepFromOthers(listener net.Listener, reached *net.TCPAddr) error {
	client, err := net.DialTCP("tcp", nil, reached)
	if err != nil {
		return err
	}
	server, err := listener.Accept()
	if err == nil {
		err = server.Close()
	}
	return errors.Join(err, client.Close())
}

// listen opens a listener; its error names the setting to change.
func listen(setting, hostPort string) (net.Listener, error) {
	listener, err := net.Listen("tcp", hostPort)
	if errors.Is(err, syscall.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(hostPort)
		return nil, fmt.Errorf("%s: port %s is already in use", setting, port)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return listener, nil
}
