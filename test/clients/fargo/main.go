// Command fargo is a service that uses the Eureka client hudl/fargo in the ordinary way: it registers, renews, registers
// again where the registry has lost it, follows the registry, and leaves it on SIGTERM. What happens to it goes to
// stdout, one JSON object a line.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/hudl/fargo"
)

// heartbeat is the time between two renewals, and between two looks at the registry.
const heartbeat = 200 * time.Millisecond

type event struct {
	Event string   `json:"event"`
	IDs   []string `json:"ids,omitempty"`
}

func say(name string, ids ...string) {
	if err := json.NewEncoder(os.Stdout).Encode(event{name, ids}); err != nil {
		log.Fatal(err)
	}
}

type service struct {
	registry fargo.EurekaConnection
	instance *fargo.Instance
	peer     string
	seen     []string
}

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)

	s := &service{registry: fargo.NewConn("http://127.0.0.1:" + os.Getenv("REGISTRY_PORT") + "/eureka"), peer: os.Getenv("PEER"),
		instance: &fargo.Instance{
			InstanceId: os.Getenv("INSTANCE"), App: os.Getenv("APP"), VipAddress: os.Getenv("APP"), HostName: "127.0.0.1", IPAddr: "127.0.0.1",
			Port: 8089, PortEnabled: true, Status: fargo.UP, DataCenterInfo: fargo.DataCenterInfo{Name: fargo.MyOwn},
		}}
	s.registry.UseJson = os.Getenv("FORMAT") == "json"
	if err := s.join(); err != nil {
		log.Fatal(err)
	}
	ticker := time.NewTicker(heartbeat)
	for {
		select {
		case <-ticker.C:
			s.renew()
			s.look()
		case <-stop:
			if err := s.registry.DeregisterInstance(s.instance); err != nil {
				log.Fatal(err)
			}
			say("deregistered")
			return
		}
	}
}

func (s *service) join() error {
	if err := s.registry.RegisterInstance(s.instance); err != nil {
		return err
	}
	if err := s.registry.AddMetadataString(s.instance, "colour", "blue"); err != nil {
		return err
	}
	say("registered")
	return nil
}

// renew sends a heartbeat, and registers again when the registry does not know the instance any more.
func (s *service) renew() {
	err := s.registry.HeartBeatInstance(s.instance)
	if code, ok := fargo.HTTPResponseStatusCode(err); ok && code == http.StatusNotFound {
		err = s.join()
	}
	if err != nil {
		say("failed")
		return
	}
	say("heartbeat")
}

// look follows the peer by its virtual address, its application and the whole registry, which must agree.
func (s *service) look() {
	instances, err := s.registry.GetInstancesByVIPAddress(s.peer, false, fargo.ThatAreUp)
	if code, ok := fargo.HTTPResponseStatusCode(err); err != nil && (!ok || code != http.StatusNotFound) {
		return // the registry is away: what was seen last holds
	}
	var ids []string
	for _, i := range instances {
		app, err := s.registry.GetApp(i.App)
		if err != nil || !holds(app, i) {
			return // it went meanwhile: the next look tells
		}
		apps, err := s.registry.GetApps()
		if err != nil || !holds(apps[i.App], i) {
			return
		}
		ids = append(ids, i.Id())
	}
	if slices.Sort(ids); !slices.Equal(ids, s.seen) {
		s.seen = ids
		say("sees", ids...)
	}
}

func holds(app *fargo.Application, wanted *fargo.Instance) bool {
	return app != nil && slices.ContainsFunc(app.Instances, func(i *fargo.Instance) bool {
		return i.Id() == wanted.Id() && i.Port == wanted.Port && i.Port > 0 && i.Status == fargo.UP
	})
}
