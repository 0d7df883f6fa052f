package student

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	limits     = AgeLimits{Min: 3, Max: 18}
	registered = Date{2026, time.November, 23}
)

func validInput() Input {
	return Input{
		FirstName: "Asha", LastName: "Patil", DateOfBirth: "2016-06-30",
		Address: Address{Street: "12 Lake Road", City: "Pune", State: "Maharashtra", PinCode: "411001", Country: "India"},
		Mobile:  "9876543210", FatherNameOrGuardian: "Ravi Patil", MotherName: "Meera Patil", Caste: "General",
	}
}

func pointer[T any](v T) *T { return &v }

func TestRules(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*Input)
		want   map[string]string
	}{
		{"valid", func(*Input) {}, nil},
		{"optional fields", func(in *Input) {
			in.Email, in.Moles, in.AadhaarNumber = pointer("a.b+c@example.com"), pointer("left cheek"), pointer("123412341234")
		}, nil},
		{"empty optional fields", func(in *Input) { in.Email, in.Moles, in.AadhaarNumber = pointer(""), pointer(" "), pointer("") }, nil},
		{"devanagari with a joiner", func(in *Input) { in.FirstName = "\u0915\u094d\u200d\u0937\u093f\u0924\u093f\u091c" }, nil},
		{"apostrophe, hyphen, full stop", func(in *Input) { in.LastName = "O'Neil-d'Souza Jr." }, nil},
		{"50 characters", func(in *Input) { in.FirstName = "  " + strings.Repeat("é", 50) + " " }, nil},
		{"50 decomposed characters", func(in *Input) { in.FirstName = strings.Repeat("e\u0301", 50) }, nil},
		{"51 characters", func(in *Input) { in.FirstName = strings.Repeat("é", 51) }, map[string]string{"firstName": "too-long"}},
		{"one character", func(in *Input) { in.FirstName = " A " }, map[string]string{"firstName": "too-short"}},
		{"blank name", func(in *Input) { in.LastName = " \t" }, map[string]string{"lastName": "required"}},
		{"digits in a name", func(in *Input) { in.FirstName = "Asha2" }, map[string]string{"firstName": "wrong-format"}},
		{"no letter", func(in *Input) { in.FirstName = "-.-" }, map[string]string{"firstName": "wrong-format"}},
		{"control character", func(in *Input) { in.FirstName = "As\x00ha" }, map[string]string{"firstName": "wrong-format"}},
		{"control character in an address", func(in *Input) { in.Address.Street = "a\x00b" }, map[string]string{"address.street": "wrong-format"}},
		{"9 digits", func(in *Input) { in.Mobile = "987654321" }, map[string]string{"mobile": "wrong-format"}},
		{"digits of another script", func(in *Input) { in.Mobile = "९८७६५४३२१०" }, map[string]string{"mobile": "wrong-format"}},
		{"pin code", func(in *Input) { in.Address.PinCode = "41100" }, map[string]string{"address.pinCode": "wrong-format"}},
		{"e-mail", func(in *Input) { in.Email = pointer("Asha <a@b.c>") }, map[string]string{"email": "wrong-format"}},
		{"aadhaar", func(in *Input) { in.AadhaarNumber = pointer("XXXX-XXXX-1234") }, map[string]string{"aadhaarNumber": "wrong-format"}},
		{"third birthday", func(in *Input) { in.DateOfBirth = "2023-11-23" }, nil},
		{"a day too young", func(in *Input) { in.DateOfBirth = "2023-11-24" }, map[string]string{"dateOfBirth": "out-of-range"}},
		{"last day of 18", func(in *Input) { in.DateOfBirth = "2007-11-24" }, nil},
		{"a day too old", func(in *Input) { in.DateOfBirth = "2007-11-23" }, map[string]string{"dateOfBirth": "out-of-range"}},
		{"in the future", func(in *Input) { in.DateOfBirth = "2027-01-01" }, map[string]string{"dateOfBirth": "out-of-range"}},
		{"no such day", func(in *Input) { in.DateOfBirth = "2016-02-30" }, map[string]string{"dateOfBirth": "not-a-date"}},
		{"nothing at all", func(in *Input) { *in = Input{} }, map[string]string{
			"firstName": "required", "lastName": "required", "dateOfBirth": "not-a-date", "address.street": "required",
			"address.city": "required", "address.state": "required", "address.pinCode": "required", "address.country": "required",
			"mobile": "required", "fatherNameOrGuardian": "required", "motherName": "required", "caste": "required"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			in := validInput()
			test.change(&in)
			_, faults := Rules{Ages: limits, Registered: registered}.Check(in)
			got := map[string]string{}
			for _, fault := range faults {
				got[fault.Field] = fault.Code
			}
			if !maps.Equal(got, test.want) {
				t.Errorf("faults %v, want %v", got, test.want)
			}
		})
	}
}

func TestRulesKnowWhatIsStored(t *testing.T) {
	t.Parallel()
	current := Details{DateOfBirth: Date{2000, time.January, 1}, AadhaarNumber: "123412341234"}
	rules := Rules{Ages: limits, Registered: registered, Current: &current}
	in := validInput()
	in.DateOfBirth, in.AadhaarNumber = "2000-01-01", pointer("XXXX-XXXX-1234")
	details, faults := rules.Check(in)
	if len(faults) > 0 {
		t.Errorf("a stored date of birth and the mask of the stored number must pass: %v", faults)
	}
	if details.AadhaarNumber != current.AadhaarNumber {
		t.Error("the mask must leave the number as it is")
	}
	in.AadhaarNumber = pointer("XXXX-XXXX-9999")
	if _, faults := rules.Check(in); len(faults) != 1 {
		t.Errorf("the mask of another number must not pass: %v", faults)
	}
}

// Whatever passes the rules is what the rules would make of it again.
func TestRulesAreStable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := validInput()
		in.FirstName = rapid.String().Draw(t, "firstName")
		in.Address.Street = rapid.String().Draw(t, "street")
		in.Email = pointer(rapid.String().Draw(t, "email"))
		rules := Rules{Ages: limits, Registered: registered}
		once, faults := rules.Check(in)
		for _, fault := range faults {
			if !slices.Contains([]string{"firstName", "address.street", "email"}, fault.Field) {
				t.Fatalf("a fault of a good field: %v", fault)
			}
		}
		if len(faults) > 0 {
			return
		}
		twice, faults := rules.Check(inputOf(once))
		if len(faults) > 0 || once != twice {
			t.Fatalf("%+v became %+v, %v", once, twice, faults)
		}
	})
}

func dates() *rapid.Generator[Date] {
	return rapid.Custom(func(t *rapid.T) Date {
		days := rapid.IntRange(0, 60*366).Draw(t, "days")
		return DateOf(time.Date(1970, 1, 1+days, 0, 0, 0, 0, time.UTC))
	})
}

func TestYearsBeforeAgreesWithAge(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		born, day, years := dates().Draw(t, "born"), dates().Draw(t, "day"), rapid.IntRange(0, 60).Draw(t, "years")
		bound := day.YearsBefore(years)
		if oldEnough, before := born.AgeOn(day) >= years, !born.time().After(bound.time()); oldEnough != before {
			t.Fatalf("born %s is %d on %s, but the bound for %d years is %s", born, born.AgeOn(day), day, years, bound)
		}
	})
}

func TestMergePatch(t *testing.T) {
	t.Parallel()
	in := validInput()
	in.Email, in.Moles = pointer("a@example.com"), pointer("left cheek")
	merged, ok := applyPatch(in, []byte(`{"firstName":"Usha","email":null,"address":{"city":"Mumbai"}}`))
	if !ok {
		t.Fatal("a good patch was refused")
	}
	want := in
	want.FirstName, want.Email, want.Address.City = "Usha", nil, "Mumbai"
	if merged.Email != nil || *merged.Moles != "left cheek" {
		t.Errorf("merged %+v", merged)
	}
	merged.Moles, want.Moles = nil, nil
	if merged != want {
		t.Errorf("merged %+v, want %+v", merged, want)
	}
	if merged, _ = applyPatch(in, []byte(`{"caste":null,"mobile":5}`)); merged.Caste != "" || merged.Mobile != "" {
		t.Errorf("what is taken away or of another type must be empty: %+v", merged)
	}
}
