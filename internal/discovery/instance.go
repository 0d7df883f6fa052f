// Package discovery is what services, the gateway and operations know of the service registry: how an instance
// registers, who is there, and how traffic is split over releases.
//
// Instances register by the Eureka REST protocol (https://github.com/Netflix/eureka/wiki/Eureka-REST-operations), so
// that any Eureka server and client will do for that part. Watching and splitting use the registry's own interface.
package discovery

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Production is the environment whose applications bear the plain names of their services.
const Production = "production"

// States of an instance, as Eureka names them.
const (
	StatusUp           = "UP"
	StatusDown         = "DOWN"
	StatusStarting     = "STARTING"
	StatusOutOfService = "OUT_OF_SERVICE"
	StatusUnknown      = "UNKNOWN"
)

// App is the name that a service's instances of one environment register under: the plain name in production and
// name-environment elsewhere. One registry serves every environment of a machine, and an ordinary Eureka client that
// asks for student-service must never be led to staging.
func App(service, environment string) string {
	if environment == "" || environment == Production {
		return service
	}
	return service + "-" + environment
}

// Instance is one running process of a service.
type Instance struct {
	// App is the application in lower case: see the function App.
	App string `json:"app"`
	// ID is unique in the registry.
	ID   string `json:"id"`
	Host string `json:"host"`
	Port int    `json:"port"`
	// Status is one of the states above; only UP takes traffic.
	Status string `json:"status"`
	// Release is the digest of what runs, as its target knows it.
	Release string `json:"release,omitempty"`
	Version string `json:"version,omitempty"`
	// Metadata is what the instance says of itself; release and version are in it too.
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Address is host:port.
func (i Instance) Address() string { return net.JoinHostPort(i.Host, strconv.Itoa(i.Port)) }

// Socket is the Unix socket by which callers on the instance's machine reach it; empty when there is none. Only an instance at a
// loopback address is on the caller's machine for certain, and only sockets of services may be named: anybody on the machine can
// register, and a gateway must not be led to the socket of something else.
func (i Instance) Socket() string {
	ip, socket := net.ParseIP(i.Host), i.Metadata[MetadataSocket]
	if ip == nil || !ip.IsLoopback() || !strings.HasPrefix(socket, SocketPrefix) {
		return ""
	}
	return socket
}

// SocketPrefix begins the names of the services' Unix sockets, in the abstract namespace (unix(7)).
const SocketPrefix = "@sms/"

// Keys of the metadata that the platform's own instances carry.
const (
	MetadataRelease     = "release"
	MetadataVersion     = "version"
	MetadataEnvironment = "environment"
	// MetadataSocket is a Unix socket on which the instance listens besides, for callers on the same machine.
	MetadataSocket = "socket"
)

// Application is all instances that registered under one name, and how traffic is split over their releases.
type Application struct {
	Instances []Instance `json:"instances"`
	Split     Split      `json:"split,omitempty"`
	// Sticky says that the split gives all requests of one user to one release, and not each by itself.
	Sticky bool `json:"sticky,omitempty"`
}

// Split says which percentage of the requests each release gets, by digest. Empty: every instance counts alike.
// A release that it names with 0 gets none; so does one that it does not name, as long as an instance of a named
// release with a share is registered.
type Split map[string]int

// Check reports what is wrong with a split: shares are from 0 to 100 and together 100.
func (s Split) Check() error {
	if len(s) == 0 {
		return nil
	}
	sum := 0
	for release, share := range s {
		if release == "" || strings.ContainsAny(release, ", \t\r\n") {
			return fmt.Errorf("%q is not a release", release)
		}
		if share < 0 || share > 100 {
			return fmt.Errorf("the share of %s is %d, not from 0 to 100", release, share)
		}
		sum += share
	}
	if sum != 100 {
		return fmt.Errorf("the shares make %d, not 100", sum)
	}
	return nil
}

// Snapshot is everything that the registry knows at one moment.
type Snapshot struct {
	// Revision changes with each change. Compare it for equality only: a registry that restarts goes on from another one.
	Revision int64 `json:"revision"`
	// Epoch is the run of the registry that answered.
	Epoch int64 `json:"epoch"`
	// Settled is false in a registry that has just started or has not read its store yet: an instance that it does not
	// show may live all the same.
	Settled bool `json:"settled"`
	// Stored is false in a registry that could not read its store yet: it does not know the splits.
	Stored bool `json:"stored"`
	// Apps by name in lower case.
	Apps map[string]Application `json:"apps"`
}

// App returns the instances and split of an application; both empty when it is not known.
func (s Snapshot) App(name string) Application { return s.Apps[strings.ToLower(name)] }
