package student

type studentOutput struct {
	ETag string `header:"ETag" doc:"Send it as If-Match to write over this version."`
	Body Student
}

type createdOutput struct {
	ETag     string `header:"ETag" doc:"Send it as If-Match to write over this version."`
	Location string `header:"Location"`
	Body     Student
}

type deletedOutput struct {
	ETag string `header:"ETag"`
}

type searchOutput struct{ Body Page }

// Page is one page of found students.
type Page struct {
	Content       []Student `json:"content" nullable:"false"`
	Page          int       `json:"page" doc:"Counts from 0."`
	Size          int       `json:"size"`
	TotalElements int64     `json:"totalElements"`
	TotalPages    int64     `json:"totalPages"`
	First         bool      `json:"first"`
	Last          bool      `json:"last"`
}

func pageOf(found []Record, total int64, page, size int, today Date) Page {
	p := Page{Content: make([]Student, len(found)), Page: page, Size: size, TotalElements: total,
		TotalPages: (total + int64(size) - 1) / int64(size), First: page == 0}
	p.Last = int64(page)+1 >= p.TotalPages
	for i, record := range found {
		p.Content[i] = present(record, today)
	}
	return p
}
