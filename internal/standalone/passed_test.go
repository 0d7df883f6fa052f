package standalone

import (
	"slices"
	"testing"
)

func TestOnlyTheServicesSettingsAreHandedOn(t *testing.T) {
	t.Parallel()
	got := Passed(map[string]string{"PATH": "/bin", "IDENTITY_OIDC_ISSUERS_FILE": "/etc/sms/issuers.json", "GATEWAY_USER_RATE": "7",
		"IDENTITY_PUBLIC_KEY_FILE": "/tmp/other.pem", "DATABASE_PASSWORD": "secret", "MY_GATEWAY_X": "1", "GATEWAY_CORS_ORIGINS": "", "gateway_x": "1",
		"BACKUP_KEEP_DAYS": "14"})
	if want := []string{"BACKUP_KEEP_DAYS=14", "GATEWAY_USER_RATE=7", "IDENTITY_OIDC_ISSUERS_FILE=/etc/sms/issuers.json"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
