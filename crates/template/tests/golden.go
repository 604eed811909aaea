// Makes golden.json: what Go itself makes of the templates in cases.json, with the functions of Docker's command line.
// Run it in this folder after a change of the cases: go run golden.go
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Case struct {
	Template string  `json:"template"`
	Out      *string `json:"out"`
}

var functions = template.FuncMap{
	"json": func(v any) string {
		var buffer bytes.Buffer
		encoder := json.NewEncoder(&buffer)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(v); err != nil {
			panic(err)
		}
		return strings.TrimSpace(buffer.String())
	},
	"split": strings.Split,
	"join": func(parts []any, separator string) string {
		var texts []string
		for _, part := range parts {
			texts = append(texts, part.(string))
		}
		return strings.Join(texts, separator)
	},
	"title": strings.Title,
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"pad": func(text string, before, behind int) string {
		if text == "" {
			return text
		}
		return strings.Repeat(" ", before) + text + strings.Repeat(" ", behind)
	},
	"truncate": func(text string, most int) string {
		if len([]rune(text)) <= most {
			return text
		}
		return string([]rune(text)[:most])
	},
}

// whole makes numbers without a fraction what they are in Docker's structures.
func whole(value any) any {
	switch value := value.(type) {
	case float64:
		if value == float64(int64(value)) {
			return int(value)
		}
	case []any:
		for n := range value {
			value[n] = whole(value[n])
		}
	case map[string]any:
		for key := range value {
			value[key] = whole(value[key])
		}
	}
	return value
}

func read(name string, into any) {
	data, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		panic(err)
	}
}

func main() {
	var templates []string
	var data any
	read("cases.json", &templates)
	read("data.json", &data)
	data = whole(data)
	cases := []Case{}
	for _, text := range templates {
		made := Case{Template: text}
		parsed, err := template.New("").Option("missingkey=error").Funcs(functions).Parse(text)
		var out bytes.Buffer
		if err == nil {
			err = parsed.Execute(&out, data)
		}
		if err == nil {
			text := out.String()
			made.Out = &text
		}
		cases = append(cases, made)
	}
	file, err := os.Create("golden.json")
	if err != nil {
		panic(err)
	}
	encoder := json.NewEncoder(file)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(cases); err != nil {
		panic(err)
	}
}
