package registry

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func TestEurekaProtocol(t *testing.T) {
	t.Parallel()
	r := newRunning(t)
	r.register(t, "student-service", "one", `,"lastDirtyTimestamp":"100"`)
	const one = "/apps/STUDENT-SERVICE/one"
	for _, step := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"register under v2 with a slash", "POST", "/v2/apps/Student-Service/", instanceJSON("student-service", "two", ""), 204},
		{"register with a bare port number", "POST", "/apps/other", `{"instance":{"hostName":"h","app":"other","port":99}}`, 204},
		{"register again", "POST", "/apps/student-service", instanceJSON("student-service", "one", `,"lastDirtyTimestamp":"100"`), 204},
		{"register something else", "POST", "/apps/student-service", `{"instance":{}}`, 400},
		{"register nonsense", "POST", "/apps/student-service", `{"instance":`, 400},
		{"register under another app", "POST", "/apps/x", instanceJSON("y", "z", ""), 400},
		{"register an unknown state", "POST", "/apps/x", instanceJSON("x", "z", `,"status":"FINE"`), 400},
		{"register a zero byte", "POST", "/apps/x", instanceJSON("x", `z\u0000`, ""), 400},
		{"renew", "PUT", one, "", 200},
		{"renew with the present dirty timestamp", "PUT", one + "?status=UP&lastDirtyTimestamp=100", "", 200},
		{"renew what has changed since", "PUT", one + "?lastDirtyTimestamp=101", "", 404},
		{"renew with a slash, lower case", "PUT", "/v2/apps/student-service/one/", "", 200},
		{"renew the unknown", "PUT", "/apps/student-service/nobody", "", 404},
		{"read the unknown app", "GET", "/apps/nobody", "", 404},
		{"read the unknown instance", "GET", "/instances/nobody", "", 404},
		{"read all", "GET", "/apps", "", 200},
		{"read all with a slash", "GET", "/v2/apps/", "", 200},
		{"read the delta", "GET", "/apps/delta", "", 200},
		{"read by vip", "GET", "/vips/student-service", "", 200},
		{"cancel", "DELETE", "/apps/student-service/two", "", 200},
		{"cancel again", "DELETE", "/apps/student-service/two", "", 404},
		{"override", "PUT", one + "/status?value=OUT_OF_SERVICE", "", 200},
		{"override with nonsense", "PUT", one + "/status?value=X", "", 400},
		{"override of the unknown", "PUT", "/apps/student-service/nobody/status?value=UP", "", 404},
		{"end the override", "DELETE", one + "/status", "", 200},
		{"metadata", "PUT", one + "/metadata?weight=3", "", 200},
	} {
		answer := r.Do(t, "", step.method, "/eureka"+step.path, step.body)
		if answer.Status != step.status {
			t.Errorf("%s: status %d, want %d: %s", step.name, answer.Status, step.status, answer.Body)
		}
		if answer.Status == http.StatusNotFound && len(answer.Body) > 0 {
			t.Errorf("%s: a refusal with a body: %s", step.name, answer.Body)
		}
	}
}

func TestOverrideOutlivesRegistration(t *testing.T) {
	t.Parallel()
	r := newRunning(t)
	status := func(want string) {
		t.Helper()
		answer := r.Do(t, "", "GET", "/eureka/apps/a/one", nil, "Accept", "application/json").Want(200)
		var body struct{ Instance document }
		answer.Decode(&body)
		if string(body.Instance.Status) != want {
			t.Errorf("status %s, want %s", body.Instance.Status, want)
		}
	}
	r.register(t, "a", "one", "")
	status("UP")
	r.Do(t, "", "PUT", "/eureka/apps/a/one/status?value=OUT_OF_SERVICE", nil).Want(200)
	status("OUT_OF_SERVICE")
	r.register(t, "a", "one", "")
	status("OUT_OF_SERVICE")
	r.register(t, "a", "one", `,"status":"DOWN"`)
	status("DOWN")
	r.register(t, "a", "one", "")
	r.Do(t, "", "DELETE", "/eureka/apps/a/one/status", nil).Want(200)
	status("UP")
}

func TestJSONAsEurekaWritesIt(t *testing.T) {
	t.Parallel()
	r := newRunning(t)
	r.register(t, "b", "one", "")
	r.register(t, "a", "two", `,"status":"DOWN"`)
	r.register(t, "a", "three", "")
	answer := r.Do(t, "", "GET", "/eureka/apps", nil, "Accept", "application/json").Want(200)
	for _, part := range []string{`"apps__hashcode":"DOWN_1_UP_2_"`, `"versions__delta":"`, `"port":{"$":8081,"@enabled":"true"}`,
		`"lastUpdatedTimestamp":"1`, `"name":"A"`, `"durationInSecs":15`, `"overriddenStatus":"UNKNOWN"`, `"actionType":"ADDED"`} {
		if !strings.Contains(string(answer.Body), part) {
			t.Errorf("%s is not in %s", part, answer.Body)
		}
	}
	if !json.Valid(answer.Body) {
		t.Error("not JSON")
	}
}

func TestXMLIsTheDefaultAndIsRead(t *testing.T) {
	t.Parallel()
	r := newRunning(t)
	const in = `<instance><hostName>10.0.0.9</hostName><app>Legacy</app><ipAddr>10.0.0.9</ipAddr><status>UP</status>
		<port enabled="true">7001</port><securePort enabled="false">443</securePort>
		<dataCenterInfo class="com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo"><name>MyOwn</name></dataCenterInfo>
		<leaseInfo><durationInSecs>30</durationInSecs></leaseInfo>
		<metadata><zone>a &amp; b</zone><release>r1</release></metadata></instance>`
	r.Do(t, "", "POST", "/eureka/apps/legacy", in, "Content-Type", "application/xml").Want(204)
	r.Do(t, "", "PUT", "/eureka/apps/legacy/10.0.0.9/metadata?not%20a%20name=x", nil).Want(200)

	answer := r.Do(t, "", "GET", "/eureka/apps/", nil).Want(200)
	if got := answer.Header.Get("Content-Type"); got != "application/xml" {
		t.Errorf("content type %q", got)
	}
	all := readXML(t, answer.Body)
	if len(all.Apps) == 0 {
		t.Fatalf("nobody: %s", answer.Body)
	}
	d := all.Apps[0].Instances[0]
	if all.Hash != "UP_1_" || all.Apps[0].Name != "LEGACY" || d.InstanceID != "10.0.0.9" || d.Port != (port{7001, true}) ||
		d.SecurePort.Enabled || d.Metadata["zone"] != "a & b" || d.Lease.Duration != 30 || d.DataCenter.Name != "MyOwn" {
		t.Errorf("read back: %+v", all)
	}
	if got := r.registry.leases[key{"legacy", "10.0.0.9"}].document().instance(); got.Release != "r1" || got.Address() != "10.0.0.9:7001" {
		t.Errorf("as the gateway sees it: %+v", got)
	}
}
