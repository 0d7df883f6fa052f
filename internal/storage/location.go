package storage

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Location is a place for objects: a folder, or a bucket of an S3-compatible storage.
type Location struct {
	// Folder is a path of a local file system; empty with S3.
	Folder string
	S3     *Bucket
}

// Bucket is a place in an S3-compatible storage.
type Bucket struct {
	Name string
	// Prefix is put before every object's name, without slashes at its ends.
	Prefix string
	// Endpoint is the storage's address without a path: https://host[:port]. Empty: that of Amazon in the region.
	Endpoint string
	Region   string
	// PathStyle puts the bucket's name into the path instead of the host's name. It is the default but at Amazon.
	PathStyle bool
	// CAFile has the certificates, in PEM, that vouch for the endpoint; empty: the machine's own.
	CAFile string
	// Lock is how long an object cannot be deleted after it was written; 0: no lock. The bucket must have object lock.
	Lock time.Duration
	// Compliance makes the lock one that nobody can lift before its time, the account's owner included.
	Compliance bool
}

const (
	defaultRegion = "us-east-1"
	day           = 24 * time.Hour
)

// bucketName is what Amazon allows ("Bucket naming rules").
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// parameters of an s3 URL.
var parameters = []string{"endpoint", "region", "pathStyle", "ca", "lock", "lockMode"}

// ParseLocation reads a folder's path, or
//
//	s3://bucket/prefix?endpoint=https://host:port&region=us-east-1&pathStyle=true&ca=/path/ca.pem&lock=30d&lockMode=governance
//
// of which all but the bucket may be left out. pathStyle is true but at Amazon; lockMode is governance, the default, or compliance. The error names every
// fault and never repeats the text, which may hold what should not be there.
func ParseLocation(text string) (Location, error) {
	if !strings.Contains(text, "://") {
		return Location{Folder: text}, nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return Location{}, errors.New("not a URL (s3://bucket/prefix?endpoint=https://host)")
	case u.Scheme == "file" && u.Host == "" && u.RawQuery == "" && u.Path != "":
		return Location{Folder: filepath.FromSlash(u.Path)}, nil
	case u.Scheme != "s3":
		return Location{}, errors.New("neither a folder's path nor an s3:// URL")
	}
	b, err := parseBucket(u)
	return Location{S3: &b}, err
}

func parseBucket(u *url.URL) (Bucket, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		fault("what follows the ? cannot be read")
	}
	for name, values := range query {
		switch {
		case !slices.Contains(parameters, name):
			fault("there is no parameter %q; known are %s", name, strings.Join(parameters, ", "))
		case len(values) > 1:
			fault("%s is given twice", name)
		}
	}
	b := Bucket{Name: u.Host, Prefix: strings.Trim(u.Path, "/"), Endpoint: strings.TrimSuffix(query.Get("endpoint"), "/"),
		Region: query.Get("region"), CAFile: query.Get("ca")}
	if u.User != nil {
		fault("the URL holds credentials: put them into the file that BACKUP_S3_CREDENTIALS_FILE names")
	}
	if !bucketName.MatchString(b.Name) {
		fault("no name of a bucket (3 to 63 lower-case letters, digits, - and .) follows s3://")
	}
	if b.Prefix != "" && (path.Clean(b.Prefix) != b.Prefix || strings.HasPrefix(b.Prefix, "..")) {
		fault("the prefix has empty parts or dots for parts")
	}
	if b.Region == "" {
		b.Region = defaultRegion
	}
	e, _ := url.Parse(b.Endpoint)
	b.PathStyle = b.Endpoint != "" && (e == nil || !atAmazon(e.Hostname()))
	if text := query.Get("pathStyle"); text != "" {
		if b.PathStyle, err = strconv.ParseBool(text); err != nil {
			fault("pathStyle is neither true nor false")
		}
	}
	faults = append(faults, b.checkEndpoint(), b.parseLock(query.Get("lock"), query.Get("lockMode")))
	return b, errors.Join(faults...)
}

// atAmazon reports whether a host is one of Amazon's.
func atAmazon(host string) bool {
	return host == "amazonaws.com" || strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn")
}

func (b *Bucket) checkEndpoint() error {
	if b.Endpoint == "" {
		return nil
	}
	e, err := url.Parse(b.Endpoint)
	if err != nil || e.Scheme != "https" && e.Scheme != "http" || e.Host == "" || e.Path != "" || e.RawQuery != "" || e.User != nil {
		return errors.New("endpoint is not https://host[:port], and no more")
	}
	if b.CAFile != "" && e.Scheme != "https" {
		return errors.New("ca is given, but the endpoint is not https")
	}
	return nil
}

func (b *Bucket) parseLock(lock, mode string) error {
	var faults []error
	if lock != "" {
		days, err := strconv.Atoi(strings.TrimSuffix(lock, "d"))
		if err != nil || !strings.HasSuffix(lock, "d") || days < 1 || days > 36500 {
			faults = append(faults, errors.New("lock is not a number of days, like 30d"))
		}
		b.Lock = time.Duration(days) * day
	}
	switch strings.ToLower(mode) {
	case "", "governance":
	case "compliance":
		b.Compliance = true
	default:
		faults = append(faults, errors.New("lockMode is neither governance nor compliance"))
	}
	if mode != "" && lock == "" {
		faults = append(faults, errors.New("lockMode is given, but no lock"))
	}
	return errors.Join(faults...)
}

// UnmarshalText reads a setting.
func (l *Location) UnmarshalText(text []byte) (err error) {
	*l, err = ParseLocation(strings.TrimSpace(string(text)))
	return err
}

// IsZero reports whether no place is named.
func (l Location) IsZero() bool { return l.Folder == "" && l.S3 == nil }

// String names the place for people.
func (l Location) String() string {
	if l.S3 == nil {
		return l.Folder
	}
	at := l.S3.Endpoint
	if at == "" {
		at = "Amazon S3, " + l.S3.Region
	}
	return "s3://" + path.Join(l.S3.Name, l.S3.Prefix) + " at " + at
}

// same reports whether two places are one.
func (l Location) same(other Location) bool {
	if l.S3 != nil && other.S3 != nil {
		return l.S3.Endpoint == other.S3.Endpoint && l.S3.Name == other.S3.Name && l.S3.Prefix == other.S3.Prefix
	}
	if l.S3 != nil || other.S3 != nil || l.IsZero() || other.IsZero() {
		return false
	}
	a, errA := os.Stat(l.Folder)
	b, errB := os.Stat(other.Folder)
	return errA == nil && errB == nil && os.SameFile(a, b) || filepath.Clean(l.Folder) == filepath.Clean(other.Folder)
}
